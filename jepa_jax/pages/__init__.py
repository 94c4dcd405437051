"""Pages for people: their parts (`document`) and HTML files without scripts, fonts or requests (`html_page`)."""

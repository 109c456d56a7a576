def space_readme(name, verdict, licence=None):
    return "---\nsdk: static\n---\n"

"""Survey section 2: how interpretable is each unit, and how sure is that?"""

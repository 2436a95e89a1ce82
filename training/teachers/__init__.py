"""Teachers: frozen models whose view of which images and captions are alike becomes soft labels (methods.md §2.2).

``open_teacher(spec)`` loads one; ``kg-targets build --scorer teacher`` keeps what it says in a target store, and
``training.teachers.online`` asks it in every step instead. One file per layout of checkpoints, one line in
``registry.TEACHERS`` each. See docs/teachers.md.
"""

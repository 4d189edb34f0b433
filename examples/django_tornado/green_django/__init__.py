"""What lets a Django project run on Tornado's event loop, in motorlike's greenlets.

`green_django.mysql` is a database backend (an ``ENGINE``) that pools its
connections. `green_django.wsgi` serves Django's views, the admin among them.
`green_django.hashers` keeps the loop free while a password is checked.

Nothing of it is about this project: copy the folder into another.
"""

"""Thin Panel views: layout and widgets; what they show and what they change is the session's."""

"""One application, as it is written with each framework.

``make_app`` of each module gives it. What the frameworks do not have in common is told by
``tests.interop.test_frameworks``.

    /rooms/{name}?color=…   accepts with the subprotocol "chat" and a header; says what it
                            has been asked, and what its lifespan has made; then echoes texts
    /bytes                  echoes bytes
    /bye                    closes with 4001
    /broken                 accepts and fails
    /private                refuses with 401

``ends`` is told how the handler of /rooms heard of the end.
"""

"""A broker in a box: one process that speaks Alpaca's dialect over its own SQLite ledger.

It is a program of its own: it imports no other room, and other rooms reach it by HTTP and websocket only.
"""

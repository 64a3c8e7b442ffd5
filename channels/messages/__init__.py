"""Messages: their tables, states and transitions.

table.py: the tables, which any module may read. states.py: the states, and `ALLOWED` with the
allowed transitions. transitions.py and device_transitions.py: one function for each transition.
past.py: the end of retention. nameless.py: what stays of an erased customer's. No
other module writes these tables.
"""

from channels.messages.states import COUNTING_STATES, DeviceState, MessageState
from channels.messages.table import message_devices, messages, past_messages

__all__ = [
    "COUNTING_STATES",
    "DeviceState",
    "MessageState",
    "message_devices",
    "messages",
    "past_messages",
]

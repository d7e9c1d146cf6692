"""Which channels of a network belong together: what is found by running it once and following them."""

from bmrs_torch.channels.follow_by import channelwise, follow_by
from bmrs_torch.channels.trace import BrokenRuleError, Call, Trace, UnknownUseError

__all__ = ["BrokenRuleError", "Call", "Trace", "UnknownUseError", "channelwise", "follow_by"]

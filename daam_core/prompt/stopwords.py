"""English function words: they serve a prompt's grammar and name nothing in its picture."""

from __future__ import annotations

_LISTED = """
a an the this that these those some any each every either neither such another other both all
i me my mine you your yours he him his she her hers it its we us our ours they them their theirs
who whom whose which what itself himself herself themselves

about above across after against along amid among around as at before behind below beneath beside besides
between beyond by down during for from in inside into like near next of off on onto out outside over past per
through throughout to toward towards under underneath until up upon via with within without

and but or nor so yet if than then because while when where though although whether
am is are was were be been being do does did doing have has had having can could may might must shall should
will would not no there here very too also just only more most much many few own same

's 't 're 've 'm 'll 'd it's that's there's he's she's let's isn't aren't wasn't weren't don't doesn't didn't
can't couldn't won't wouldn't hasn't haven't shouldn't i'm you're we're they're
"""

STOP_WORDS = frozenset(_LISTED.split())
"""Lower-case, with straight apostrophes."""

"""Plain words that a class may be called by; each gets a row in the token table."""

_WORDS = (
    "animal bird bug fish insect reptile pet flower plant tree fruit vegetable food "
    "meal dessert drink vehicle boat airplane train car building place house clothing clothes shoe hat "
    "tool weapon instrument sport ball game toy face hand heart flag weather sky moon star clock time "
    "book money phone computer camera office letter arrow sign symbol person people family job worker "
    "doctor furniture kitchen household medicine medical science jewelry celebration holiday party "
    "religion body light music sound lock mail writing number shape warning emotion country map "
    "mountain electronics sea ocean nature activity"
)
PLAIN_WORDS = tuple(_WORDS.split())

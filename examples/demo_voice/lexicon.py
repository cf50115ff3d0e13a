"""Word lists of the demo corpus, by part of speech.

``SMALL`` is the vocabulary of the held-out sentences and of the recogniser that scores them (at
most 150 words in all); ``LARGE`` adds everyday English words, so that the voice is not bound to
the test.
"""

from __future__ import annotations

Lexicon = dict[str, list[str]]


def _words(text: str) -> list[str]:
    return text.split()


SMALL: Lexicon = {
    "det": _words("the a this that my your our his every"),
    "adj": _words(
        "small big old young red green blue white black warm cold happy quiet strong long new "
        "dark bright good"
    ),
    "noun": _words(
        "man woman boy girl dog cat horse bird tree house door window garden river mountain road "
        "book letter table ship teacher doctor farmer king child friend city morning evening "
        "winter summer water bread music story question answer money paper field"
    ),
    "verb_s": _words(
        "opens finds sees holds takes wants needs loves follows brings hears leaves remembers"
    ),
    "verb": _words(
        "open find see take want need follow carry bring hear make keep leave wait work walk"
    ),
    "intr_s": _words("sleeps sings waits works runs walks smiles falls stands"),
    "adv": _words("slowly quickly again now never always together today tomorrow"),
    "prep": _words("in on under near behind with without over after before from to"),
    "pron": _words("he she they we you i it"),
    "conj": _words("and but because when"),
    "neg": ["not"],
    "aux": _words("can will must should"),
    "wh": _words("where why who"),
    "num": _words("two three"),
    "be": _words("is was"),
}

_LARGE_ONLY: Lexicon = {
    "det": _words("her their some any each another no one its"),
    "adj": _words(
        "able angry ancient awful bad beautiful bitter blank bold brave brief broad broken brown "
        "busy calm careful cheap clean clear clever cloudy common complete cool correct crazy "
        "curious dangerous deep different difficult dirty distant double dry dull eager early "
        "easy empty enormous entire equal exact expensive fair false famous fast fat final fine "
        "flat foolish foreign free fresh friendly full funny gentle giant glad golden grand "
        "grateful gray great hard heavy hidden high hollow honest hot huge human hungry important "
        "innocent large late lazy light little local lonely loose lost loud low lucky mad main "
        "modern narrow natural near neat nervous next nice noisy normal odd open orange ordinary "
        "pale perfect plain pleasant polite poor pretty private proud public pure purple quick "
        "rare ready real recent rich right rough round royal sad safe secret separate serious "
        "sharp shiny short sick silent silver simple slow smart smooth soft solid sour special "
        "square stiff strange sudden sweet tall tame thick thin tiny tired tough true ugly "
        "unusual useful usual vast violent wet whole wide wild wise wonderful wooden wrong yellow"
    ),
    "noun": _words(
        "account action address afternoon air airport animal apple arm army artist aunt autumn "
        "baby back bag ball bank basket bath beach bean bear bed bee bell bicycle bill block "
        "blood board boat body bone bottle box brain branch bridge brother brush bucket building "
        "bus butter button cabin cake camera camp candle car card carpet castle cause center "
        "century chain chair chance cheese chicken choice church circle class clock cloth cloud "
        "club coach coast coat coffee coin color company computer cook copper corn corner cotton "
        "country cousin cow cream crowd crown cup curtain customer dance danger daughter day "
        "death degree desert desk dinner direction dish distance dragon drawer dream dress drink "
        "driver duck dust ear earth edge egg elephant engine error event example eye face fact "
        "factory family father feather fence finger fire fish flag flame floor flower food foot "
        "forest fork fox frame fruit future game gate gift glass goat gold grandfather "
        "grandmother grass group guard guest guide guitar gun hair hall hammer hand harbor hat "
        "head heart heat hill history hole holiday home honey hospital hotel hour hunter husband "
        "ice idea insect iron island jacket job joke journey judge juice jungle key kitchen "
        "kitten knee knife lady lake lamp land language law leader leaf leather leg lemon lesson "
        "library lightning line lion list lock machine magazine map market meal measure meat "
        "medicine meeting metal middle milk mind mirror mistake moment monkey month moon mother "
        "motor mouse mouth movie museum nail name nation neck needle neighbor nephew nest news "
        "newspaper night noise north nose note number nurse oak object ocean office officer oil "
        "onion orchard owner page pain painter palace pan parent park part party passenger path "
        "pattern peace pen pencil people pepper person phone picture piece pig pilot pipe place "
        "plan plane planet plant plate player pocket poem poet point police pond pool potato "
        "pound power present price prince princess prison prize problem program promise purpose "
        "queen rabbit radio rain reason record report rice ring robot rock roof room root rope "
        "rose rule sailor salt sand scale school science sea season seat second seed servant "
        "shadow shape sheep shelf shirt shoe shop shore shoulder side sign signal silence sister "
        "size skin sky sleep smoke snake snow soap soldier son song sound soup south space spider "
        "spoon spring stage stair star station stem stick stomach stone store storm stranger "
        "stream street student sugar suit sun surface sweater system tail taste tea team tent "
        "test theater thief thing thought thread throat throne thunder ticket tiger time toe "
        "tongue tool tooth top touch tower town toy track trade train travel treasure trip "
        "trouble truck truth turn uncle valley vegetable view village visit visitor voice volcano "
        "wagon wall war watch wave way weather week wheat wheel whisper wife wind wine wing wire "
        "wish wolf wood wool word work worker world worm yard year zoo"
    ),
    "verb_s": _words(
        "accepts admires answers asks avoids carries makes keeps believes blames borrows breaks "
        "builds burns buys calls catches changes chases checks chooses cleans climbs closes "
        "collects cooks counts covers crosses cuts delivers describes destroys discovers draws "
        "drinks drives drops eats enjoys enters explains feeds feels fights fills fixes forgets "
        "gathers gets gives grabs greets guards guesses hates helps hides hits hurts imagines "
        "improves invites joins judges kicks kisses knows learns lifts likes loses measures meets "
        "mentions misses moves notices obeys offers owns packs paints passes pays picks plants "
        "plays pours praises prefers prepares promises protects pulls pushes puts reaches reads "
        "receives repairs repeats replaces rides saves sells sends serves shakes shares shows "
        "signs smells spends steals studies studies supports teaches tells throws touches trusts "
        "understands uses visits washes watches wears wins writes"
    ),
    "verb": _words(
        "accept admire answer ask avoid hold believe blame borrow break build burn buy call catch "
        "change chase check choose clean climb close collect cook count cover cross cut deliver "
        "describe destroy discover draw drink drive drop eat enjoy enter explain feed feel fight "
        "fill fix forget gather get give grab greet guard guess hate help hide hit hurt imagine "
        "improve invite join judge kick kiss know learn lift like lose love measure meet mention "
        "miss move notice obey offer own pack paint pass pay pick plant play pour praise prefer "
        "prepare promise protect pull push put reach read receive remember repair repeat replace "
        "ride save say sell send serve shake share show sign smell spend steal study support "
        "teach tell throw touch trust understand use visit wash watch wear win write"
    ),
    "intr_s": _words(
        "agrees appears arrives begins blows breathes changes comes complains continues cries "
        "dances dies disappears dreams drifts ends escapes exists fades fails flies floats glows "
        "grows happens hurries jumps laughs lies listens lives looks melts moves pauses plays "
        "prays rests returns rises rolls rushes shines shouts sits sneezes speaks spins spreads "
        "starts stays stops succeeds swims talks thinks travels trembles turns vanishes wanders "
        "whispers wins wonders"
    ),
    "adv": _words(
        "almost already alone away badly carefully certainly clearly close deeply early easily "
        "everywhere exactly finally forever gently happily here home inside just late later "
        "loudly maybe nearly nicely often once only outside perfectly perhaps probably quietly "
        "rarely really sadly safely silently simply sometimes soon still suddenly surely there "
        "twice upstairs usually very well yesterday"
    ),
    "prep": _words(
        "about above across against along among around at below beside between beyond by down "
        "during for inside into like of off onto outside past since through toward until up upon "
        "within"
    ),
    "conj": _words("or so if while although unless than then though"),
    "aux": _words("could would may might shall"),
    "wh": _words("what how which whose"),
    "num": _words(
        "one four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
        "seventeen eighteen nineteen twenty thirty forty fifty sixty seventy eighty ninety "
        "hundred thousand million first third"
    ),
    "be": _words("are were"),
}

LARGE: Lexicon = {kind: SMALL.get(kind, []) + words for kind, words in _LARGE_ONLY.items()} | {
    kind: words for kind, words in SMALL.items() if kind not in _LARGE_ONLY
}


def vocabulary(lexicon: Lexicon) -> list[str]:
    """Every distinct word of a lexicon, sorted."""
    return sorted({word for words in lexicon.values() for word in words})

"""The data of the sample shop: invented goods, common names, places, unassigned numbers."""

from collections.abc import Iterator
from typing import NamedTuple

GOODS: dict[str, tuple[tuple[str, float], ...]] = {  # category -> name and price
    "Camping": (
        ("Lantern with a Hook", 24.5),
        ("Tent for Two Nights", 189.0),
        ("Feather-light Sleeping Mat", 64.9),
        ("Kettle that Folds", 31.0),
        ("Campfire Mug, Enamel", 11.5),
    ),
    "Cycling": (
        ("Bell with Two Tones", 13.9),
        ("Pannier, 20 Litres", 58.0),
        ("Rear Light, Steady Red", 19.5),
        ("Gloves without Fingers", 27.0),
        ("Chain Oil for Wet Roads", 8.75),
    ),
    "Walking": (
        ("Socks for Long Days", 14.0),
        ("Boots for Stony Paths", 139.0),
        ("Map Case, Waterproof", 17.25),
        ("Walking Poles, a Pair", 49.0),
        ("Hat with a Wide Brim", 32.0),
    ),
    "Swimming": (
        ("Goggles for Open Water", 26.0),
        ("Towel that Dries Fast", 18.5),
        ("Bright Float for the Lake", 35.0),
        ("Cap, Sea Green", 7.5),
    ),
    "Winter": (
        ("Sledge of Ash Wood", 79.0),
        ("Scarf, Undyed Wool", 38.0),
        ("Flask that Stays Hot", 29.5),
        ("Lined Mittens", 33.0),
        ("Snow Lantern Mould", 21.0),
    ),
}

# Orders by month, relative; more before Christmas and in early summer.
SEASON = (0.7, 0.65, 0.8, 0.9, 1.0, 1.15, 1.05, 0.85, 0.9, 1.05, 1.6, 1.9)

_ENGLISH = (
    "Alice Amir Bethan Charlie Daniel Ella Farah George Hannah Isaac Jodie Kieran Leah Marcus "
    "Niamh Oliver Priya Quentin Rosie Samuel Tessa Umar Violet William Yasmin Zoë",
    "Abbott Barker Chowdhury Davies Ellison Fletcher Grant Hughes Iqbal Jennings Kelly Lawson "
    "Murray Nolan Osborne Patel Quinn Reid Shah Turner Underwood Vaughan Walsh Young",
)
_GERMAN = (
    "Anke Bernd Clara Dieter Elif Felix Greta Hannes Ingrid Jürgen Katrin Lukas Murat Nele Petra "
    "Rainer Sabine Thorsten Ute Volker",
    "Albrecht Becker Dietrich Engel Fischer Günther Hartmann Jansen Köhler Lehmann Möller Neumann "
    "Pfeiffer Richter Schäfer Thiel Vogel Winkler Yilmaz Ziegler",
)
_FRENCH = (
    "Amélie Bastien Camille Didier Élodie Fabien Gaëlle Hugo Inès Julien Léa Mehdi Noémie Olivier "
    "Pauline Rémi Sophie Thierry",
    "Bernard Chevalier Dubois Étienne Fournier Garnier Henry Lambert Mercier Nguyen Perrin "
    "Renaud Roussel Simon Vidal",
)
_DUTCH = (
    "Annelies Bram Daan Esmée Femke Gijs Hanneke Joris Lotte Maarten Noor Ruben Sanne Thijs",
    "Bakker Bos Dekker Hendriks Jacobs Kuipers Mulder Peters Smit Visser Willems",
)
_SPANISH = (
    "Alba Bruno Carmen Diego Elena Fernando Inés Javier Lucía Marta Nuria Pablo Rocío Tomás",
    "Álvarez Blanco Castro Díaz Fernández Gil Herrera Iglesias Moreno Núñez Ortega Ramos",
)
_ITALIAN = (
    "Alessia Bruno Chiara Dario Elisa Fabio Giulia Ivano Luca Marta Nicolò Paola Stefano",
    "Barbieri Conti Deluca Esposito Ferrari Greco Leone Mancini Palmieri Rinaldi Villa",
)
_SWEDISH = (
    "Anders Birgitta Elsa Filip Gunilla Hampus Ida Johan Karin Lars Maja Nils Sofia Åsa",
    "Andersson Berg Dahl Ekström Forsberg Holm Lindqvist Nyström Sandberg Åkerlund",
)
_POLISH = (
    "Agnieszka Bartosz Dorota Ewa Filip Grzegorz Hanna Jakub Kasia Marek Natalia Piotr",
    "Adamski Borkowski Dudek Jankowska Kaczmarek Lis Nowak Pawlak Sikora Wójcik",
)
_JAPANESE = (
    "Aiko Daichi Emi Haruto Kaori Kenji Mei Naoko Ren Sakura Takumi Yui",
    "Aoki Fujita Hayashi Inoue Kato Mori Nakamura Ono Sato Tanaka Ueda Yamada",
)
_PORTUGUESE = (
    "Ana Bruno Camila Eduardo Fernanda Gabriel Helena João Larissa Mateus Renata Tiago",
    "Almeida Barbosa Cardoso Duarte Freitas Gomes Lopes Moreira Pereira Ribeiro Souza",
)


class Region(NamedTuple):
    """A country with its share of customers (percent), language, zones and names."""

    country: str
    share: float
    language: str
    zones: tuple[str, ...]
    names: tuple[str, str]  # given names, family names; separated by spaces


PLACES = (
    Region("GB", share=34, language="en", zones=("Europe/London",), names=_ENGLISH),
    Region("DE", share=12, language="de", zones=("Europe/Berlin",), names=_GERMAN),
    Region("FR", share=9, language="fr", zones=("Europe/Paris",), names=_FRENCH),
    Region(
        "ES",
        share=6,
        language="es",
        zones=("Europe/Madrid", "Europe/Madrid", "Atlantic/Canary"),
        names=_SPANISH,
    ),
    Region("IT", share=6, language="it", zones=("Europe/Rome",), names=_ITALIAN),
    Region("IE", share=5, language="en", zones=("Europe/Dublin",), names=_ENGLISH),
    Region("NL", share=5, language="nl", zones=("Europe/Amsterdam",), names=_DUTCH),
    Region("PL", share=4, language="pl", zones=("Europe/Warsaw",), names=_POLISH),
    Region("SE", share=3, language="sv", zones=("Europe/Stockholm",), names=_SWEDISH),
    Region(
        "US",
        share=7,
        language="en",
        zones=("America/New_York", "America/Chicago", "America/Denver", "America/Los_Angeles"),
        names=_ENGLISH,
    ),
    Region(
        "CA", share=2, language="en", zones=("America/Toronto", "America/Vancouver"), names=_ENGLISH
    ),
    Region(
        "AU",
        share=2,
        language="en",
        zones=("Australia/Sydney", "Australia/Brisbane", "Australia/Perth"),
        names=_ENGLISH,
    ),
    Region("JP", share=2, language="ja", zones=("Asia/Tokyo",), names=_JAPANESE),
    Region("BR", share=1.5, language="pt", zones=("America/Sao_Paulo",), names=_PORTUGUESE),
    Region("IN", share=1.5, language="en", zones=("Asia/Kolkata",), names=_ENGLISH),
)

# Numbers that regulators reserve for fiction: prefix, first, one past the last, digits.
_FICTION: dict[str, tuple[tuple[str, int, int, int], ...]] = {
    # Ofcom: no area, London, Leeds, Birmingham. Not the mobile block +447700900: it is common in
    # test data, which must not join profiles of the sample shop.
    "GB": tuple((p, 0, 1000, 3) for p in ("+441632960", "+442079460", "+441134960", "+441214960")),
    "IE": (("+35320910", 0, 10_000, 4),),  # ComReg
    "FR": (("+3363998", 0, 10_000, 4),),  # ARCEP, mobile
    "DE": (  # Bundesnetzagentur: Berlin, Frankfurt, Hamburg, Munich
        ("+493023125", 0, 1000, 3),
        ("+496990009", 0, 1000, 3),
        ("+494066969", 0, 1000, 3),
        ("+498999998", 0, 1000, 3),
    ),
    "SE": (("+46701740", 605, 700, 3),),  # PTS, mobile
    "AU": (("+6125550", 0, 10_000, 4),),  # ACMA
    # North American numbering plan: 555-0100 to 555-0199 of any area
    "US": tuple((f"+1{a}55501", 0, 100, 2) for a in (202, 206, 212, 303, 312, 404, 415, 512, 617)),
    "CA": tuple((f"+1{area}55501", 0, 100, 2) for area in (416, 514, 604, 902)),
}


def fiction_numbers(country: str) -> Iterator[str]:
    """The reserved numbers of a country, each once."""
    for prefix, first, end, digits in _FICTION.get(country, ()):
        for number in range(first, end):
            yield f"{prefix}{number:0{digits}}"

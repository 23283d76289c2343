"""The classes of the development tasks, in words."""

from __future__ import annotations

# Unicode's large groups, of emoji.
GROUPS = (
    "smiley emotion",
    "person body",
    "animal nature",
    "food drink",
    "travel place",
    "activity",
    "object",
    "symbol",
)
# Words that keywords define. The demo's tasks have none of them.
THEMES = (
    *("celebration", "drink", "fashion", "love", "office", "plant", "pointing", "sea", "smile"),
    *("transport", "video", "weapon"),
)
# Several of Unicode's subgroups each, of emoji; a name that ends with - stands for all that begin with it.
FAMILIES = {
    "bird": ("animal-bird",),
    "building": ("place-building", "place-religious"),
    "dessert and drink": ("food-sweet", "drink"),
    "face": ("face-",),
    "fruit and vegetable": ("food-fruit", "food-vegetable"),
    "game and sport": ("game", "sport"),
    "insect": ("animal-bug",),
    "letter and number": ("alphanum", "math", "punctuation"),
    "mammal": ("animal-mammal",),
    "meal": ("food-prepared", "food-asian"),
    "office and mail": ("office", "mail", "writing", "book-paper"),
    "person": ("person-",),
    "plant": ("plant-",),
    "sea animal": ("animal-marine", "food-marine"),
    "shape": ("geometric",),
    "sky": ("sky-weather",),
    "tool": ("tool", "lock"),
    "vehicle": ("transport-ground",),
}
# Of icon packages: their own categories, in words of ours.
ICON_PARK = {
    "Animals": "animal",
    "Arrows": "arrow",
    "Baby": "baby",
    "Build": "building",
    "Charts": "chart",
    "Clothes": "clothes",
    "Emoji": "face",
    "Foods": "food",
    "Game": "game",
    "Hands": "hand",
    "Hardware": "computer and device",
    "Health": "health",
    "Makeups": "beauty",
    "Money": "money",
    "Music": "music",
    "Peoples": "person",
    "Sports": "sport",
    "Travel": "travel",
}
ULTIMATE = {
    "ArrowsDiagrams": "arrow",
    "BusinessProducts": "business",
    "ComputersDevicesElectronics": "computer",
    "Content": "book and news",
    "Design": "design",
    "EntertainmentEventsHobbies": "entertainment",
    "FilesFolders": "file",
    "FoodDrinks": "food and drink",
    "HealthBeauty": "health and beauty",
    "ImagesPhotography": "photography",
    "InternetNetworksServers": "internet",
    "Logos": "logo",
    "MapsNavigation": "map",
    "MessagesChatSmileys": "message",
    "MoneyPaymentsFinance": "money",
    "MusicAudio": "music",
    "PhonesMobileDevices": "phone",
    "ShippingDelivery": "delivery",
    "ShoppingEcommerce": "shopping",
    "SocialMediasRewardsRating": "reward",
    "Sports": "sport",
    "Transportation": "transportation",
    "Users": "person",
    "VideoMoviesTv": "video and movie",
    "Wayfinding": "sign",
    "Weather": "weather",
    "WorkOfficeCompanies": "work and office",
}
HEALTH = {
    "Body": "body part",
    "Conditions": "illness",
    "Devices": "medical device",
    "Diagnostics": "laboratory test",
    "Emotions": "face",
    "Graphs": "chart",
    "Medications": "medicine",
    "Nutrition": "food",
    "Objects": "object",
    "People": "person",
    "Places": "place",
    "Specialties": "medical department",
    "Typography": "letter and number",
}
ICONS = (ICON_PARK, ULTIMATE, HEALTH)
ALL = tuple(
    dict.fromkeys((*GROUPS, *THEMES, *FAMILIES, *(words for each in ICONS for words in each.values())))
)

# For the demo's model, whose vocabulary lacks words of four of them.
IN_OTHER_WORDS = {
    "computer and device": "computer",
    "illness": "sick",
    "medical device": "instrument",
    "reward": "prize",
}

"""UTKFace gender classification, fair over gender: MobileNet-V2 pruned to 90 % (Table 2).

As utkface_gender_by_race.py, which says the protocol, but for the groups.

Command:  fairgrape run experiments/utkface_gender_by_gender.py --data.path FOLDER_OR_TAR
"""

import dataclasses

from utkface_gender_by_race import EXPERIMENT as BY_RACE

EXPERIMENT = dataclasses.replace(BY_RACE, data=dataclasses.replace(BY_RACE.data, group="gender"))

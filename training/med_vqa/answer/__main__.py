"""``python -m training.med_vqa.answer``: answer a part of a data set and score it."""

import sys

from training.med_vqa.answer.evaluation import main

if __name__ == "__main__":
    sys.exit(main())

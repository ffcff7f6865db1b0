"""`python -m onestage` is `onestage`."""

from onestage.cli import main

if __name__ == "__main__":
    main()

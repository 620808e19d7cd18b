"`python -m tirnas`, where the command itself is not on the path."
from tirnas.cli import main

if __name__ == "__main__": main()

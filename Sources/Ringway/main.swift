import Glibc
print("ringway")

import Glibc
import Proxy

exit(Program.run(CommandLine.arguments))

import Testing
import Proxy

// Header compression of nghttp2; its session serves only as the reference peer in tests.
#pragma once
#include "curing.h"
#include <nghttp2/nghttp2.h>

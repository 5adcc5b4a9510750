#include "stat.h"

/* stat */
#ifndef STAT_H
#define STAT_H
#include "base.h"
#endif

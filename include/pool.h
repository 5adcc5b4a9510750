/* pool */
#ifndef POOL_H
#define POOL_H
#include "base.h"
#endif

/* net */
#ifndef NET_H
#define NET_H
#include "base.h"
#endif

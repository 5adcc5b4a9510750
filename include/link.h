/* link */
#ifndef LINK_H
#define LINK_H
#include "base.h"
#endif

/* admin */
#ifndef ADMIN_H
#define ADMIN_H
#include "base.h"
#endif

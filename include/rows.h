/* rows */
#ifndef ROWS_H
#define ROWS_H
#include "base.h"
#endif

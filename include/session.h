/* session */
#ifndef SESSION_H
#define SESSION_H
#include "base.h"
#endif

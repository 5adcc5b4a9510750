/*
 * http: the JSON API, /metrics and /health, on http_listen (evhttp, on the side thread). A
 * statement runs as a client of the proxy inside the process (session_open_inner), through the
 * same login, routing and limits as on the wire.
 */
#ifndef HTTP_H
#define HTTP_H
#include "base.h"
#include "conf.h"
#include "net.h"

/* Listens, on net_side(), before net_start(). 0 when http_listen is not set. F_SYSTEM and why
 * when the address cannot be had. */
int http_start(
    struct worker *side, const struct settings *, char *why, size_t why_len) MUST_USE;
/* When the threads have ended. */
void http_stop(struct worker *side);

#endif

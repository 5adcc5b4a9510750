/* net, for its own files: what the loop and TLS do with streams. */
#ifndef NET_STREAM_H
#define NET_STREAM_H
#include "net.h"

/* Left-over bytes, one read, and what TLS may still have held of a record. */
#define WORKER_RBUF_BYTES (NET_READ_BYTES * 2 + 32768)

/* Reads and feeds until the socket is empty, the stream is paused or its share is used. */
void stream_serve(struct stream *);
/* What has happened to the socket: EPOLL… */
void stream_polled(struct stream *, uint32_t events);
/* Puts the stream on the ready list of its worker. */
void stream_make_ready(struct stream *);
/* Sending is over; lost() follows what can still be read. */
void stream_send_failed(struct stream *, int err);
/* Sends what TLS has put into the worker's wire_out. */
void stream_send_records(struct stream *);

#endif

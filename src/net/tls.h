/* net, for its own files: TLS under a stream. Bytes go through buffers of the worker, so
 * that one read or send of the socket serves many records. */
#ifndef NET_TLS_H
#define NET_TLS_H
#include "net.h"

#include <openssl/x509.h>

enum tls_step {
	TLS_STEP_MORE, /* needs bytes from the peer */
	TLS_STEP_DONE,
	TLS_STEP_END, /* the peer closed TLS in good order */
	TLS_STEP_FAILED
};
/* Goes on with the handshake; what is to be sent is in worker->wire_out. */
enum tls_step tls_shake(struct stream *);
/* Decrypts what is in worker->wire_in to `to`; *len: in: room, out: bytes written. */
enum tls_step tls_decrypt(struct stream *, uint8_t *to, size_t *len);
/* Encrypts into worker->wire_out. False: TLS failed. */
bool tls_encrypt(struct stream *, const void *p, size_t len);
/* Puts the close_notify into worker->wire_out. */
void tls_close(struct stream *);

/* What a verification of OpenSSL has found, remembered for stream_tls_is_proven(). */
int tls_note_verdict(int ok, X509_STORE_CTX *);

#endif

/* What certificates say: who a client is, and to which one a login is bound. */
#include "tls.h"
#include <openssl/evp.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>
#include <string.h>

/* Where no certificate is demanded, one that is not right is taken all the same: it proves
 * nothing, and stream_tls_is_proven() remembers that. */
int
tls_note_verdict(int ok, X509_STORE_CTX *store)
{
	SSL *ssl =
	    X509_STORE_CTX_get_ex_data(store, SSL_get_ex_data_X509_STORE_CTX_idx());

	if (!ok)
		SSL_set_app_data(ssl, ssl);
	return (1);
}

bool
stream_tls_is_proven(const struct stream *s)
{
	X509 *cert = s->ssl == NULL ? NULL : SSL_get0_peer_certificate(s->ssl);

	return (cert != NULL && SSL_get_verify_mode(s->ssl) != SSL_VERIFY_NONE &&
		SSL_get_app_data(s->ssl) == NULL &&
		SSL_get_verify_result(s->ssl) == X509_V_OK);
}

/* The whole subject as RFC 2253 writes it. */
static char *
subject_text(const X509_NAME *subject)
{
	BIO *bio = BIO_new(BIO_s_mem());
	char *text = NULL;
	const char *p;
	long len;

	if (bio != NULL && X509_NAME_print_ex(bio, subject, 0, XN_FLAG_RFC2253) > 0 &&
	    (len = BIO_get_mem_data(bio, &p)) > 0 && memchr(p, '\0', (size_t)len) == NULL)
		text = mem_strn(p, (size_t)len);
	BIO_free(bio);
	return (text);
}

/* The first common name in UTF-8. With a NUL in it, it is none: what stands before would pass for
 * the whole. */
static char *
common_name(const X509_NAME *subject)
{
	int at = X509_NAME_get_index_by_NID(subject, NID_commonName, -1);
	unsigned char *utf8;
	char *text = NULL;
	int len;

	if (at < 0)
		return (NULL);
	len = ASN1_STRING_to_UTF8(
	    &utf8, X509_NAME_ENTRY_get_data(X509_NAME_get_entry(subject, at)));
	if (len < 0)
		return (NULL);
	if (len > 0 && memchr(utf8, '\0', (size_t)len) == NULL)
		text = mem_strn((const char *)utf8, (size_t)len);
	OPENSSL_free(utf8);
	return (text);
}

char *
stream_tls_name(const struct stream *s, bool whole)
{
	const X509_NAME *subject;

	if (!stream_tls_is_proven(s))
		return (NULL);
	subject = X509_get_subject_name(SSL_get0_peer_certificate(s->ssl));
	return (whole ? subject_text(subject) : common_name(subject));
}

size_t
stream_tls_end_point(const struct stream *s, bool is_ours, uint8_t out[64])
{
	X509 *cert = s->ssl == NULL ? NULL
		     : is_ours      ? SSL_get_certificate(s->ssl)
				    : SSL_get0_peer_certificate(s->ssl);
	const EVP_MD *md;
	unsigned len = 0;
	int digest;

	if (cert == NULL || !X509_get_signature_info(cert, &digest, NULL, NULL, NULL))
		return (0);
	/* RFC 5929, 4.1: what is weaker than SHA-256 gives way to it. */
	md = digest == NID_md5 || digest == NID_sha1 ? EVP_sha256()
						     : EVP_get_digestbynid(digest);
	if (md == NULL || EVP_MD_get_size(md) > 64 || !X509_digest(cert, md, out, &len))
		return (0);
	return (len);
}

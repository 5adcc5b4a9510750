/* Parts of one write: runs of bytes where they were read, and new ones between them. */
#include "private.h"

void
batch_begin(struct batch *b, struct stream *to, struct buf *scratch)
{
	b->to = to;
	b->scratch = scratch;
	b->scratch->len = 0;
	b->count = 0;
	b->bytes = 0;
	b->held = NULL;
}

static struct part *
batch_part(struct batch *b)
{
	if (b->count == BATCH_PARTS)
		batch_flush(b);
	return (&b->parts[b->count++]);
}

void
batch_pass(struct batch *b, const uint8_t *p, size_t len)
{
	struct part *last = b->count > 0 ? &b->parts[b->count - 1] : NULL;

	if (len == 0)
		return;
	b->bytes += len;
	if (last != NULL && last->p != NULL && last->p + last->len == p)
		last->len += len;
	else
		*batch_part(b) = (struct part){.p = p, .len = len};
}

struct buf *
batch_make(struct batch *b)
{
	if (b->count == BATCH_PARTS)
		batch_flush(b);
	return (b->scratch);
}

void
batch_made(struct batch *b)
{
	struct part *last = b->count > 0 ? &b->parts[b->count - 1] : NULL;
	size_t at = 0;

	for (unsigned i = 0; i < b->count; i++)
		if (b->parts[i].p == NULL)
			at = b->parts[i].at + b->parts[i].len;
	if (b->scratch->len == at)
		return;
	b->bytes += b->scratch->len - at;
	if (last != NULL && last->p == NULL)
		last->len = b->scratch->len - last->at;
	else
		b->parts[b->count++] =
		    (struct part){.at = at, .len = b->scratch->len - at};
}

void
batch_flush(struct batch *b)
{
	struct iovec iov[BATCH_PARTS];

	for (unsigned i = 0; i < b->count; i++) {
		const uint8_t *p = b->parts[i].p;

		if (p == NULL)
			p = b->scratch->mem + b->parts[i].at;
		iov[i].iov_base = (void *)(uintptr_t)p;
		iov[i].iov_len = b->parts[i].len;
	}
	for (unsigned i = 0; b->held != NULL && i < b->count; i++)
		buf_add(b->held, iov[i].iov_base, iov[i].iov_len);
	if (b->held == NULL && b->count > 0)
		stream_writev(b->to, iov, (int)b->count);
	b->count = 0;
	b->scratch->len = 0;
	if (b->scratch->cap > NET_READ_BYTES * 2)
		buf_free(b->scratch);
}

/* The text of a statement without the databases that it names before its tables. */
#include "private.h"
#include "token.h"
#include <string.h>

/* The word that the table's name begins with, and the dot behind it. */
static void
blank(char *text, const struct sql_scan *scan, const struct sql_table *table)
{
	struct sql_lexer l = sql_lexer_of(scan);
	struct sql_token word, dot;

	l.at = table->at;
	sql_lex(&l, &word);
	sql_lex(&l, &dot);
	if (l.at <= scan->len && scan->sql[dot.at] == '.')
		memset(text + table->at, ' ', l.at - table->at);
}

char *
sql_text_without(const struct sql_scan *scan,
    bool (*is_member)(void *arg, const char *name), void *arg)
{
	struct sql_arena arena = {0};
	struct sql_facts facts;
	char *text = NULL;

	/* Not from the cache: the places are those of this very text. */
	sql_facts_find(scan, &arena, &facts);
	for (unsigned i = 0; i < facts.table_count; i++) {
		const struct sql_table *t = &facts.tables[i];

		if (t->catalog == NULL || t->at + t->len > scan->len ||
		    !is_member(arg, t->catalog))
			continue;
		if (text == NULL)
			text = mem_strn(scan->sql, scan->len);
		blank(text, scan, t);
	}
	sql_arena_free(&arena);
	return (text);
}

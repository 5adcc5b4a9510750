// pgJDBC: statements prepared on the server, batches, generated keys, cursors, autosave, cancels,
// COPY, metadata, threads. Each argument is what test_orms.py says of one database, as words
// "name=value" separated by blanks.
import java.io.StringReader;
import java.io.StringWriter;
import java.sql.*;
import java.time.OffsetDateTime;
import java.time.ZoneOffset;
import java.util.*;
import java.util.concurrent.*;
import org.postgresql.PGConnection;
import org.postgresql.PGStatement;
import org.postgresql.util.PSQLException;

public class Jdbc {
	static Map<String, String> config;
	static boolean isVirtual;

	interface Act { void run() throws Exception; }

	static void check(boolean is, Object... said) {
		if (!is)
			throw new AssertionError(config.get("database") + ": " + Arrays.toString(said));
	}

	static void same(Object want, Object got) {
		check(Objects.equals(want, got), "want", want, "got", got);
	}

	static void refused(String sqlstate, Act act) throws Exception {
		try {
			act.run();
		} catch (SQLException e) {
			check(sqlstate.equals(e.getSQLState()), "want", sqlstate, "got", e.getSQLState(), e);
			return;
		}
		check(false, "not refused", sqlstate);
	}

	static Connection connect(String database, String... options) throws SQLException {
		String url = "jdbc:postgresql://" + config.get("host") + ":" + config.get("port") + "/"
		    + database + "?user=" + config.get("user") + "&password=" + config.get("password");
		for (String o : options)
			url += "&" + o;
		return DriverManager.getConnection(url);
	}

	static void run(Connection c, String... sql) throws SQLException {
		try (Statement s = c.createStatement()) {
			for (String one : sql)
				s.execute(one);
		}
	}

	static Object value(Connection c, String sql, Object... values) throws SQLException {
		try (PreparedStatement s = c.prepareStatement(sql)) {
			for (int i = 0; i < values.length; i++)
				s.setObject(i + 1, values[i]);
			try (ResultSet r = s.executeQuery()) {
				return r.next() ? r.getObject(1) : null;
			}
		}
	}

	static long count(Connection c, String table) throws SQLException {
		return (Long) value(c, "select count(*) from " + table);
	}

	// ---- what is tried, on fresh tables ----

	static void make() throws Exception {
		try (Connection c = connect(config.get("database"))) {
			run(c, "drop table if exists jd_order", "drop table if exists jd_customer",
			    "create table jd_customer (id serial primary key, name text unique, info jsonb,"
			        + " tags text[], at timestamptz, balance numeric(12,2))",
			    "create table jd_order (id serial primary key,"
			        + " customer int references jd_customer, amount int)");
		}
		try (Connection c = connect(config.get("member"))) {
			run(c, "drop table if exists user_activity",
			    "create table user_activity (id serial primary key, user_id int, kind text)");
		}
	}

	static void batches(Connection c) throws Exception {
		OffsetDateTime at = OffsetDateTime.of(2026, 10, 25, 0, 30, 0, 123456000, ZoneOffset.UTC);
		List<Integer> ids = new ArrayList<>();
		try (PreparedStatement s = c.prepareStatement("insert into jd_customer (name, info, tags, at,"
		    + " balance) values (?, ?::jsonb, ?, ?, ?)", new String[] {"id"})) {
			for (int i = 0; i < 300; i++) {
				s.setString(1, "j" + i);
				s.setString(2, "{\"i\": " + i + "}");
				s.setArray(3, c.createArrayOf("text", new String[] {"ä\"", "t" + i}));
				s.setObject(4, at);
				s.setBigDecimal(5, new java.math.BigDecimal("10.50"));
				s.addBatch();
			}
			int[] n = s.executeBatch();
			check(n.length == 300 && (n[0] == 1 || n[0] == Statement.SUCCESS_NO_INFO), n[0]);
			try (ResultSet r = s.getGeneratedKeys()) {
				while (r.next())
					ids.add(r.getInt(1));
			}
		}
		same(300, new HashSet<>(ids).size());
		try (PreparedStatement s = c.prepareStatement("insert into user_activity (user_id, kind)"
		    + " values (?, ?)")) {
			for (int i = 0; i < 400; i++) {
				s.setInt(1, i % 4);
				s.setString(2, "click");
				s.addBatch();
			}
			s.executeBatch();
		}
		same(400L, count(c, "user_activity"));
		try (PreparedStatement s = c.prepareStatement("select info ->> 'i', tags, at, balance from"
		    + " jd_customer where name = ?")) {
			for (int i = 0; i < 12; i++) { // the sixth is prepared on the server, the next are binary
				s.setString(1, "j" + i);
				try (ResultSet r = s.executeQuery()) {
					check(r.next());
					same("" + i, r.getString(1));
					same("t" + i, ((String[]) r.getArray(2).getArray())[1]);
					same(at, r.getObject(3, OffsetDateTime.class));
					same("10.50", r.getBigDecimal(4).toString());
				}
			}
			if (config.get("way") == null)
				check(s.unwrap(PGStatement.class).isUseServerPrepare());
		}
		// a batch of which one fails: the batch is undone, and says where
		c.setAutoCommit(false);
		try (Statement s = c.createStatement()) {
			s.addBatch("insert into jd_order (amount) values (1)");
			s.addBatch("insert into jd_customer (name) values ('j1')");
			s.addBatch("insert into jd_order (amount) values (2)");
			s.executeBatch();
			check(false, "the batch went through");
		} catch (BatchUpdateException e) {
			same("23505", e.getSQLState());
		}
		c.rollback();
		c.setAutoCommit(true);
		same(0L, count(c, "jd_order"));
		try (PreparedStatement s = c.prepareStatement("insert into jd_customer (name, balance) values"
		    + " (?, ?) on conflict (name) do update set balance = excluded.balance returning id")) {
			s.setString(1, "j7");
			s.setInt(2, 99);
			try (ResultSet r = s.executeQuery()) {
				check(r.next());
				same(ids.get(7), r.getInt(1));
			}
		}
	}

	static void transactions(Connection c) throws Exception {
		c.setAutoCommit(false);
		c.setTransactionIsolation(Connection.TRANSACTION_REPEATABLE_READ);
		same(400L, count(c, "user_activity"));
		run(c, "insert into jd_customer (name) values ('tx')");
		Savepoint p = c.setSavepoint("here");
		refused("23505", () -> run(c, "insert into jd_customer (name) values ('j1')"));
		refused("25P02", () -> run(c, "select 1"));
		c.rollback(p);
		Savepoint q = c.setSavepoint();
		run(c, "insert into jd_customer (name) values ('tx2')");
		c.releaseSavepoint(q);
		c.commit();
		c.setTransactionIsolation(Connection.TRANSACTION_READ_COMMITTED);
		same(2L, value(c, "select count(*) from jd_customer where name in (?, ?)", "tx", "tx2"));
		c.commit();
		Act both = () -> {
			run(c, "insert into jd_customer (name) values ('both')");
			run(c, "insert into user_activity (user_id) values (9)");
		};
		if (isVirtual)
			refused("0A000", both);
		else
			both.run();
		c.rollback();
		c.setReadOnly(true);
		refused("25006", () -> run(c, "insert into jd_customer (name) values ('no')"));
		c.rollback();
		same(302L, count(c, "jd_customer"));
		c.commit();
		c.setReadOnly(false);
		c.setAutoCommit(true);
		try (Connection r = connect(config.get("database"), "readOnlyMode=always")) {
			r.setReadOnly(true);
			refused("25006", () -> run(r, "insert into jd_customer (name) values ('no')"));
			r.setReadOnly(false);
			run(r, "insert into jd_customer (name) values ('yes')");
		}
	}

	static void cursors(Connection c) throws Exception {
		c.setAutoCommit(false);
		for (int again = 0; again < 8; again++) { // a portal with a name, of a prepared statement
			try (PreparedStatement s = c.prepareStatement("select id from user_activity where id > ?");
			     Statement other = c.createStatement()) {
				s.setFetchSize(37);
				s.setInt(1, 0);
				ResultSet r = s.executeQuery();
				other.setFetchSize(50);
				ResultSet r2 = other.executeQuery("select name from jd_customer");
				int n = 0;
				for (; r.next(); n++)
					check(n % 2 != 0 || n > 600 || r2.next(), n);
				same(400, n);
			}
			if (again % 2 == 0)
				c.commit();
		}
		c.rollback();
		c.setAutoCommit(true);
		try (Statement s = c.createStatement(ResultSet.TYPE_SCROLL_INSENSITIVE, ResultSet.CONCUR_UPDATABLE);
		     ResultSet r = s.executeQuery("select id, name from jd_customer where name = 'j5'")) {
			check(r.next());
			r.updateString(2, "j5 renamed");
			r.updateRow();
			r.moveToInsertRow();
			r.updateInt(1, 100000);
			r.updateString(2, "inserted");
			r.insertRow();
		}
		same(100000, value(c, "select id from jd_customer where name = ?", "inserted"));
		try (Statement s = c.createStatement()) {
			s.setMaxRows(5);
			ResultSet r = s.executeQuery("select 1 from user_activity");
			int n = 0;
			while (r.next())
				n++;
			check(n == 5 || String.valueOf(config.get("way")).matches(".*(simple|ForPrepared)"), n);
		}
	}

	static void copies(Connection c) throws Exception {
		var copy = c.unwrap(PGConnection.class).getCopyAPI();
		same(1000L, copy.copyIn("copy user_activity (user_id, kind) from stdin", new StringReader(
		    "77\tcopied\n".repeat(1000))));
		StringWriter w = new StringWriter();
		same(1000L, copy.copyOut("copy (select user_id from user_activity where user_id = 77) to stdout", w));
		same("77\n".repeat(1000), w.toString());
		refused("22P02", () -> copy.copyIn("copy user_activity (user_id) from stdin",
		    new StringReader("1\nx\n")));
		var in = copy.copyIn("copy user_activity (user_id) from stdin");
		byte[] row = "78\n".getBytes();
		in.writeToCopy(row, 0, row.length);
		in.cancelCopy();
		same(1000L, value(c, "select count(*) from user_activity where user_id > ?", 70));
		run(c, "delete from user_activity where user_id > 70");
	}

	static void cancels(Connection c) throws Exception {
		try (Statement s = c.createStatement()) {
			s.setQueryTimeout(1);
			refused("57014", () -> s.execute("select pg_sleep(30)"));
		}
		try (Statement s = c.createStatement()) {
			var ended = Executors.newSingleThreadExecutor();
			var done = ended.submit(() -> {
				refused("57014", () -> s.execute("select pg_sleep(30)"));
				return true;
			});
			while (!done.isDone()) { // one that comes before the statement is for nothing
				s.cancel();
				Thread.sleep(20);
			}
			check(done.get());
			ended.shutdown();
		}
		same(1, value(c, "select 1"));
		check(c.isValid(5));
	}

	static void session(Connection c) throws Exception {
		c.setClientInfo("ApplicationName", "jdbc here");
		same("jdbc here", value(c, "show application_name"));
		DatabaseMetaData m = c.getMetaData();
		Set<String> names = new HashSet<>();
		try (ResultSet r = m.getColumns(null, "public", "jd_customer", null)) {
			while (r.next())
				names.add(r.getString("COLUMN_NAME") + " " + r.getString("TYPE_NAME"));
		}
		check(names.contains("tags _text") && names.contains("id serial"), names);
		try (ResultSet r = m.getImportedKeys(null, "public", "jd_order")) {
			check(r.next());
			same("jd_customer", r.getString("PKTABLE_NAME"));
		}
		if (!"preferQueryMode=simple".equals(config.get("way")))
			described(c);
		refused("42P01", () -> run(c, "select * from nosuch"));
		refused("22012", () -> value(c, "select 1 / ?", 0));
		try (Statement s = c.createStatement()) {
			check(s.execute("select 1; select 2; select 3"));
			check(s.getMoreResults() && s.getMoreResults());
			try (ResultSet r = s.getResultSet()) {
				check(r.next());
				same(3, r.getInt(1));
			}
		}
		same(config.get("activityAt"), value(c, "select current_database() from user_activity limit ?", 1));
	}

	static void described(Connection c) throws Exception {
		try (PreparedStatement s = c.prepareStatement("select at, ? from jd_customer where id = ?")) {
			same("timestamptz", s.getMetaData().getColumnTypeName(1));
			same(2, s.getParameterMetaData().getParameterCount());
		}
		try (CallableStatement s = c.prepareCall("{? = call upper(?)}")) {
			s.registerOutParameter(1, Types.VARCHAR);
			s.setString(2, "loud");
			s.execute();
			same("LOUD", s.getString(1));
		}
	}

	static void autosave(String how) throws Exception {
		try (Connection c = connect(config.get("database"), "autosave=" + how, "prepareThreshold=1")) {
			c.setAutoCommit(false);
			run(c, "insert into jd_customer (name) values ('saved " + how + "')");
			for (int i = 0; i < 3; i++) {
				try {
					run(c, "insert into jd_customer (name) values ('j1')");
					check(false, "twice");
				} catch (SQLException e) {
					same("23505", e.getSQLState());
				}
				if (how.equals("always"))
					same(1L, value(c, "select count(*) from jd_customer where name = ?", "saved always"));
				else {
					c.rollback();
					run(c, "insert into jd_customer (name) values ('saved " + how + "')");
				}
			}
			c.commit();
			// the table changes under a statement that the server has prepared
			for (int i = 0; i < 3; i++)
				value(c, "select * from jd_order where id = ?", i);
			c.commit();
			try (Connection other = connect(config.get("database"))) {
				run(other, "alter table jd_order add " + how + " int");
			}
			value(c, "select * from jd_order where id = ?", 1);
			c.commit();
		}
		try (Connection c = connect(config.get("database"))) {
			same("saved " + how, value(c, "select name from jd_customer where name = ?", "saved " + how));
		}
	}

	static void threads() throws Exception {
		var pool = Executors.newFixedThreadPool(8);
		List<Future<Boolean>> all = new ArrayList<>();
		for (int t = 0; t < 8; t++) {
			int start = t;
			all.add(pool.submit(() -> {
				try (Connection c = connect(config.get("database"), "prepareThreshold=2")) {
					for (int i = start; i < 96; i += 8) {
						same(i + 1, value(c, "select user_id from accounts where user_id = ?", i + 1));
						same(100L, value(c, "select count(*) from user_activity where user_id = ?", i % 4));
					}
				}
				return true;
			}));
		}
		for (var f : all)
			check(f.get());
		pool.shutdown();
	}

	public static void main(String[] args) throws Exception {
		for (String arg : args) {
			config = new HashMap<>();
			for (String word : arg.split(" "))
				config.put(word.split("=")[0], word.split("=", 2)[1]);
			isVirtual = config.get("isVirtual").equals("True");
			String[][] ways = {{}, {"prepareThreshold=1", "reWriteBatchedInserts=true"},
			    {"preferQueryMode=simple"}, {"preferQueryMode=extendedCacheEverything"}};
			for (String[] way : ways) {
				make();
				if (way.length > 0)
					config.put("way", way[0]);
				try (Connection c = connect(config.get("database"), way)) {
					batches(c);
					transactions(c);
					cursors(c);
					copies(c);
					session(c);
				} catch (Throwable e) {
					System.out.println(config.get("database") + " " + String.join(" ", way));
					throw e;
				}
			}
			try (Connection c = connect(config.get("database"))) {
				cancels(c);
			}
			autosave("always");
			autosave("conservative");
			threads();
		}
		System.out.println("fine");
	}
}

"""Django: migrations, the schema editor, models, relations, transactions, cursors on the server,
bulk writes, its own classes of errors, threads. See test_orms.py."""
import datetime
import io
import json
import os
import sys
import threading

import django
from django.apps import AppConfig
from django.conf import settings

CONFIG = json.loads(sys.argv[1])


def database(name, **more):
    return {"ENGINE": "django.db.backends.postgresql", "NAME": name, "USER": CONFIG["user"],
            "PASSWORD": CONFIG["password"], "HOST": CONFIG["host"], "PORT": CONFIG["port"],
            "CONN_MAX_AGE": None, **more}


class Shop(AppConfig):
    name, label, path = __name__, "shop", os.path.dirname(os.path.abspath(__file__))


settings.configure(
    DATABASES={"default": database(CONFIG["database"]), "member": database(CONFIG["member"]),
               "pooled": database(CONFIG["database"], DISABLE_SERVER_SIDE_CURSORS=True)},
    INSTALLED_APPS=["django.contrib.contenttypes", "django.contrib.auth", "django.contrib.postgres",
                    f"{__name__}.Shop"],
    USE_TZ=True, TIME_ZONE="Europe/Berlin", DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
    PASSWORD_HASHERS=["django.contrib.auth.hashers.MD5PasswordHasher"])
django.setup()

from django.contrib.auth.models import Group, User  # noqa: E402
from django.contrib.postgres.fields import ArrayField  # noqa: E402
from django.core.management import call_command  # noqa: E402
from django.db import (IntegrityError, NotSupportedError,  # noqa: E402
                       ProgrammingError, connection, connections, models, transaction)
from django.db.models import Count, Exists, F, OuterRef, Sum  # noqa: E402


class Customer(models.Model):
    name = models.CharField(max_length=50, unique=True)
    info = models.JSONField(null=True)
    tags = ArrayField(models.TextField(), null=True)
    at = models.DateTimeField(null=True)
    balance = models.DecimalField(max_digits=12, decimal_places=2, default=0)

    class Meta:
        db_table = "dj_customer"


class Order(models.Model):
    customer = models.ForeignKey(Customer, on_delete=models.CASCADE)
    amount = models.IntegerField()

    class Meta:
        db_table = "dj_order"


class Activity(models.Model):
    user_id = models.IntegerField()
    kind = models.CharField(max_length=20)

    class Meta:
        db_table = "user_activity"


def refused(error, sqlstate, call):
    try:
        with transaction.atomic():
            call()
    except error as e:
        assert e.__cause__.pgcode == sqlstate, e
    else:
        raise AssertionError(f"not refused: {sqlstate}")


def migrate():
    call_command("migrate", verbosity=0)
    said = io.StringIO()
    call_command("migrate", stdout=said)
    assert "No migrations to apply" in said.getvalue()
    call_command("migrate", "auth", "0011", verbosity=0)
    call_command("migrate", "auth", verbosity=0)
    for name, tables in (("member", "user_activity"), ("default", "dj_order, dj_customer")):
        with connections[name].cursor() as c:
            c.execute(f"drop table if exists {tables}")
    with connections["member"].schema_editor() as e:
        e.create_model(Activity)
    with connection.schema_editor() as e:
        e.create_model(Customer)
        e.create_model(Order)
    age = models.IntegerField(null=True, db_index=True)
    age.set_attributes_from_name("age")
    with connection.schema_editor() as e:
        e.add_field(Customer, age)
    with connection.cursor() as c:
        columns = [d.name for d in connection.introspection.get_table_description(c, "dj_customer")]
        assert {"dj_customer", "dj_order"} <= set(connection.introspection.table_names(c))
    assert "age" in columns
    with connection.schema_editor() as e:
        e.remove_field(Customer, age)


def rows():
    at = datetime.datetime(2026, 10, 25, 0, 30, 0, 123456, tzinfo=datetime.timezone.utc)
    made = Customer.objects.bulk_create([
        Customer(name=f"d{i}", info={"i": i, "a": ["ä"]}, tags=['"', f"t{i}"], at=at, balance="1.50")
        for i in range(30)], batch_size=11)
    Order.objects.bulk_create([Order(customer=c, amount=i) for i, c in enumerate(made)])
    Activity.objects.bulk_create([Activity(user_id=i % 4, kind="click") for i in range(40)])
    assert Activity.objects.filter(user_id=3).count() == 10
    assert Customer.objects.filter(info__i__gt=20).count() == 9
    assert Customer.objects.get(tags__contains=["t7"]).info == {"i": 7, "a": ["ä"]}
    assert Customer.objects.filter(at=at).count() == 30
    assert Customer.objects.filter(at__hour=2, at__date="2026-10-25").count() == 30
    last = Order.objects.select_related("customer").order_by("-amount")[0]
    assert last.customer.name == "d29" and last.customer.at == at
    assert Order.objects.values("customer__name").annotate(s=Sum("amount")).filter(s__gt=25).count() == 4
    assert Customer.objects.filter(Exists(Order.objects.filter(customer=OuterRef("pk"), amount=3))).count() == 1
    assert [c.order_set.count() for c in Customer.objects.prefetch_related("order_set")[:3]] == [1] * 3
    assert Customer.objects.filter(name="d1").update(balance=F("balance") + 1) == 1
    for c in made:
        c.balance = 5
    Customer.objects.bulk_update(made, ["balance"])
    assert Customer.objects.aggregate(s=Sum("balance"), n=Count("*")) == {"s": 150, "n": 30}
    Customer.objects.bulk_create([Customer(name="d1")], ignore_conflicts=True)
    assert Customer.objects.get_or_create(name="new")[1]
    assert not Customer.objects.update_or_create(name="new", defaults={"balance": 7})[1]
    assert Customer.objects.get(name="d4").delete()[0] == 2
    User.objects.filter(username="ada").delete()
    Group.objects.filter(name="readers").delete()
    user = User.objects.create_user("ada", "a@b.c", "secret")
    user.groups.add(Group.objects.create(name="readers"))
    assert User.objects.get(groups__name="readers").check_password("secret")


def transactions():
    with transaction.atomic():
        assert Activity.objects.count() == 40
        Customer.objects.create(name="tx")
        refused(IntegrityError, "23505", lambda: Customer.objects.create(name="d1"))
        assert Customer.objects.select_for_update().get(name="d2").info["i"] == 2
        Customer.objects.create(name="tx2")
    assert Customer.objects.filter(name__in=["tx", "tx2"]).count() == 2

    def both():
        Customer.objects.create(name="both")
        Activity.objects.create(user_id=9, kind="x")
    if CONFIG["isVirtual"]:
        refused(NotSupportedError, "0A000", both)
    else:
        with transaction.atomic():
            both()
    n = 0 if CONFIG["isVirtual"] else 1
    assert Customer.objects.filter(name="both").count() == n
    assert Activity.objects.filter(user_id=9).delete()[0] == n
    done = []
    with transaction.atomic():
        transaction.on_commit(lambda: done.append(1))
        Customer.objects.filter(name="d3").delete()
        transaction.set_rollback(True)
    assert Customer.objects.filter(name="d3").exists() and not done


def cursors():
    """Outside of a transaction Django's is WITH HOLD, which PgBouncer's pools of transactions do not
    serve; its documentation names the setting for that."""
    def read(using="default"):
        return len(list(Activity.objects.using(using).iterator(chunk_size=7)))
    with transaction.atomic():
        assert read() == 40
    assert read("pooled") == 40
    if CONFIG["keepsCursors"]:
        assert read() == 40


def queries():
    def one(i):
        with connection.cursor() as c:
            c.execute("select user_id from accounts where user_id = %s", [i + 1])
            assert c.fetchone() == (i + 1,)
        assert Activity.objects.filter(user_id=i % 4).count() == 10

    def some(start):
        try:
            for i in range(start, 60, 6):
                one(i)
            done.append(start)
        finally:
            connection.close()
    done = []
    threads = [threading.Thread(target=some, args=[i]) for i in range(6)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert len(done) == 6
    with connection.cursor() as c:
        c.execute("select current_database() from user_activity limit 1")
        assert c.fetchone() == (CONFIG["activityAt"],)
        c.executemany("insert into user_activity (user_id, kind) values (%s, %s)", [(8, "a"), (8, "b")])
    refused(ProgrammingError, "42P01", lambda: list(Activity.objects.raw("select * from nosuch")))
    assert Activity.objects.filter(user_id=8).delete()[0] == 2


migrate()
rows()
transactions()
cursors()
queries()
print("fine")

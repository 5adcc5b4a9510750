// TypeORM: synchronized schemas, migrations, repositories, relations, query builders,
// transactions, streams, a pool. See test_orms.py.
require('reflect-metadata')
const assert = require('assert')
const { DataSource, EntitySchema, In, MoreThan, QueryFailedError } = require('typeorm')
const { config, range, run } = require('./common')

const Customer = new EntitySchema({
  name: 'ty_customer',
  columns: {
    id: { type: Number, primary: true, generated: true },
    name: { type: String, unique: true },
    info: { type: 'jsonb', nullable: true },
    tags: { type: 'text', array: true, nullable: true },
    at: { type: 'timestamptz', createDate: true },
    version: { type: Number, version: true }
  },
  relations: { orders: { type: 'one-to-many', target: 'ty_order', inverseSide: 'customer' } }
})
const Order = new EntitySchema({
  name: 'ty_order',
  columns: { id: { type: 'uuid', primary: true, generated: 'uuid' }, amount: { type: 'int' } },
  relations: { customer: { type: 'many-to-one', target: 'ty_customer', joinColumn: true } }
})
const Activity = new EntitySchema({
  name: 'user_activity',
  columns: {
    id: { type: Number, primary: true, generated: true },
    user_id: { type: Number },
    kind: { type: String }
  }
})

class Region1700000000001 {
  async up (q) {
    await q.query('create table ty_region (id int primary key)')
    await q.query('alter table ty_region add name text')
  }

  async down (q) {
    await q.dropTable('ty_region')
  }
}
class Broken1700000000002 {
  async up (q) {
    await q.query('insert into ty_region values (1)')
    await q.query('select 1/0')
  }

  async down () {}
}

const connect = (database, entities, more) => new DataSource({
  type: 'postgres', host: config.host, port: config.port, username: config.user,
  password: config.password, database, entities, poolSize: 5, installExtensions: false,
  uuidExtension: 'pgcrypto', logging: !!process.env.ORM_LOG, ...more
}).initialize()

async function migrate () {
  const activity = await connect(config.member, [Activity])
  await activity.query('drop table if exists user_activity')
  await activity.synchronize()
  await activity.destroy()
  const own = await connect(config.database, [Customer, Order])
  await own.query('drop table if exists ty_order, ty_customer, ty_region, migrations')
  await own.synchronize()
  assert.deepStrictEqual((await own.driver.createSchemaBuilder().log()).upQueries, [])
  await own.destroy()
  const first = await connect(config.database, [], { migrations: [Region1700000000001] })
  assert.strictEqual((await first.runMigrations({ transaction: 'each' })).length, 1)
  assert.strictEqual((await first.runMigrations({ transaction: 'each' })).length, 0)
  await first.destroy()
  const second = await connect(config.database, [], { migrations: [Region1700000000001, Broken1700000000002] })
  assert(await second.showMigrations())
  await assert.rejects(second.runMigrations({ transaction: 'all' }), e => e.code === '22012')
  assert.deepStrictEqual(await second.query('select * from ty_region'), [])
  await second.undoLastMigration()
  await assert.rejects(second.query('select * from ty_region'), e => e.code === '42P01')
  await second.destroy()
}

async function rows (customers, orders, activities) {
  const made = await customers.save(range(20).map(i => ({ name: `t${i}`, info: { i }, tags: ['é"', `${i}`] })))
  await orders.save(made.map((customer, i) => ({ amount: i, customer })))
  await activities.insert(range(30).map(i => ({ user_id: i % 3, kind: 'click' })))
  assert.strictEqual(await activities.countBy({ user_id: 2 }), 10)
  const [page, n] = await customers.findAndCount({
    where: { id: MoreThan(made[4].id) }, relations: { orders: true }, take: 5, order: { id: 'ASC' }
  })
  assert.strictEqual(n, 15)
  assert.deepStrictEqual(page.map(c => c.orders[0].amount), [5, 6, 7, 8, 9])
  assert.deepStrictEqual([page[0].tags, page[0].info], [['é"', '5'], { i: 5 }])
  assert(Math.abs(page[0].at - Date.now()) < 60000)
  page[0].info = { changed: true }
  await customers.save(page[0])
  assert.strictEqual((await customers.findOneBy({ id: page[0].id })).version, 2)
  await customers.upsert({ name: 't3', info: { up: 1 } }, ['name'])
  assert.strictEqual((await customers.findOneBy({ name: 't3' })).info.up, 1)
  const sum = await orders.createQueryBuilder('o').select('sum(o.amount)', 's')
    .where('o.amount > :a', { a: 10 }).getRawOne()
  assert.strictEqual(sum.s, '135')
}

async function transactions (db, customers, activities) {
  await db.transaction('REPEATABLE READ', async m => {
    await m.count(Activity)
    await m.save(Customer, { name: 'tx' })
    await assert.rejects(m.transaction(m2 => m2.save(Customer, { name: 't1' })), QueryFailedError)
    await m.findOne(Customer, { where: { name: 't2' }, lock: { mode: 'pessimistic_write' } })
    await m.save(Customer, { name: 'tx2' })
  })
  assert.strictEqual(await customers.countBy({ name: In(['tx', 'tx2']) }), 2)
  const wrote = db.transaction(async m => {
    await m.save(Customer, { name: 'both' })
    await m.save(Activity, { user_id: 9, kind: 'x' })
  })
  if (config.isVirtual) await assert.rejects(wrote, e => e.code === '0A000')
  else await wrote
  const n = config.isVirtual ? 0 : 1
  assert.strictEqual(await customers.countBy({ name: 'both' }), n)
  assert.strictEqual((await activities.delete({ user_id: 9 })).affected, n)
  const runner = db.createQueryRunner()
  await runner.startTransaction()
  await runner.manager.delete(Activity, { user_id: 0 })
  await runner.rollbackTransaction()
  await runner.release()
  assert.strictEqual(await activities.count(), 30)
}

async function queries (db, customers, activities) {
  await assert.rejects(customers.insert({ name: 't1' }),
    e => e instanceof QueryFailedError && e.driverError.code === '23505')
  const seen = []
  for await (const row of await activities.createQueryBuilder('a').select('a.id').stream()) seen.push(row.a_id)
  assert.strictEqual(new Set(seen).size, 30)
  await Promise.all(range(60).map(async i => {
    const [row] = await db.query('select user_id from accounts where user_id = $1', [i + 1])
    assert.strictEqual(row.user_id, i + 1)
    assert.strictEqual((await activities.findBy({ user_id: i % 3 })).length, 10)
  }))
  const [at] = await db.query('select current_database() as name from user_activity limit $1', [1])
  assert.strictEqual(at.name, config.activityAt)
}

run(async () => {
  await migrate()
  const db = await connect(config.database, [Customer, Order, Activity])
  const [customers, orders, activities] = [Customer, Order, Activity].map(e => db.getRepository(e))
  await rows(customers, orders, activities)
  await transactions(db, customers, activities)
  await queries(db, customers, activities)
  await db.destroy()
})

// Knex: its schema builder, migrations with their lock table, queries, transactions, streams,
// batches, a pool. See test_orms.py.
const assert = require('assert')
const knex = require('knex')
const { config, range, run } = require('./common')

const { host, port, user, password } = config
const connect = (database, more) => knex({
  client: 'pg', connection: { host, port, user, password, database }, pool: { min: 0, max: 5 }, ...more
})

const MIGRATIONS = {
  '1_customers': {
    up: async db => {
      await db.schema.createTable('kx_customer', t => {
        t.increments()
        t.string('name').notNullable().unique()
        t.jsonb('info')
        t.specificType('tags', 'text[]')
        t.timestamp('at', { useTz: true }).defaultTo(db.fn.now())
      })
      await db.schema.createTable('kx_order', t => {
        t.increments()
        t.integer('customer_id').references('kx_customer.id').onDelete('cascade')
        t.integer('amount')
      })
    },
    down: db => db.schema.dropTable('kx_order').dropTable('kx_customer')
  },
  '2_age': {
    up: db => db.schema.alterTable('kx_customer', t => { t.integer('age').index() }),
    down: db => db.schema.alterTable('kx_customer', t => { t.dropColumn('age') })
  },
  // A table of another member, which one transaction cannot make together with the note of it.
  '3_activity': {
    config: { transaction: false },
    up: db => db.schema.createTable('user_activity', t => {
      t.increments()
      t.integer('user_id').index()
      t.string('kind')
    }),
    down: db => db.schema.dropTable('user_activity')
  },
  '4_broken': {
    up: async db => {
      await db.schema.createTable('kx_half', t => { t.increments() })
      await db.raw('select 1/0')
    },
    down: () => {}
  }
}

function migrations (count) {
  return {
    migrationSource: {
      getMigrations: async () => Object.keys(MIGRATIONS).slice(0, count),
      getMigrationName: m => m,
      getMigration: async m => MIGRATIONS[m]
    }
  }
}

async function migrate (db) {
  for (const table of ['kx_order', 'kx_customer', 'user_activity', 'knex_migrations', 'knex_migrations_lock']) {
    await db.schema.dropTableIfExists(table)
  }
  assert.strictEqual((await db.migrate.latest(migrations(3)))[1].length, 3)
  assert.strictEqual((await db.migrate.latest(migrations(3)))[1].length, 0)
  await assert.rejects(db.migrate.latest(migrations(4)), e => e.code === '22012')
  assert(!await db.schema.hasTable('kx_half'))
  assert(await db.schema.hasColumn('kx_customer', 'age'))
  assert.strictEqual((await db.migrate.down(migrations(3)))[1].length, 1)
  assert.strictEqual((await db.migrate.down(migrations(2)))[1].length, 1)
  assert(!await db.schema.hasColumn('kx_customer', 'age'))
  assert.strictEqual((await db.migrate.up(migrations(2)))[1].length, 1)
  await db('knex_migrations_lock').update({ is_locked: 1 })
  await assert.rejects(db.migrate.latest(migrations(3)), /Migration table is already locked/)
  await db.migrate.forceFreeMigrationsLock(migrations(3))
  assert.strictEqual((await db.migrate.latest(migrations(3)))[1].length, 1)
  const activity = connect(config.member)
  assert(await activity.schema.hasTable('user_activity'))
  await activity.destroy()
}

async function rows (db) {
  const at = new Date('2026-10-25T00:30:00.5Z')
  const made = await db('kx_customer').insert(range(20).map(i => (
    { name: `k${i}`, info: { i }, tags: [`t${i}`, 'ü,"'], at, age: i }))).returning(['id', 'at'])
  assert.strictEqual(made.length, 20)
  assert.strictEqual(made[7].at.getTime(), at.getTime())
  await db('kx_order').insert(made.map(({ id }, i) => ({ customer_id: id, amount: i })))
  await db.batchInsert('user_activity', range(100).map(i => ({ user_id: i % 5, kind: 'click' })), 30)
  assert.strictEqual((await db('user_activity').where({ user_id: 3 }).count('* as n').first()).n, '20')
  const best = await db('kx_customer as c').join('kx_order as o', 'o.customer_id', 'c.id')
    .select('c.name').sum('o.amount as s').groupBy('c.name').having(db.raw('sum(o.amount)'), '>', 17)
    .orderBy('s', 'desc')
  assert.deepStrictEqual(best.map(r => [r.name, r.s]), [['k19', '19'], ['k18', '18']])
  await db('kx_customer').insert({ name: 'k1', age: 99 }).onConflict('name').merge()
  const first = await db('kx_customer').where('name', 'k1').first()
  assert.deepStrictEqual([first.age, first.tags], [99, ['t1', 'ü,"']])
  const ninth = await db('kx_customer').whereJsonPath('info', '$.i', '=', 9).first()
  assert.deepStrictEqual([ninth.name, ninth.info, ninth.tags], ['k9', { i: 9 }, ['t9', 'ü,"']])
  assert.strictEqual(await db('kx_customer').where('age', '<', 5).increment('age', 1), 4)
}

async function transactions (db) {
  await db.transaction(async t => {
    await t('user_activity').count()
    await t('kx_customer').insert({ name: 'tx' })
    await assert.rejects(t.transaction(async t2 => {
      await t2('kx_customer').insert({ name: 'k1' })
    }), e => e.code === '23505' && e.constraint === 'kx_customer_name_unique')
    await t('kx_customer').where({ name: 'k2' }).forUpdate().first()
    await t('kx_customer').insert({ name: 'tx2' })
  }, { isolationLevel: 'serializable' })
  assert.strictEqual((await db('kx_customer').whereIn('name', ['tx', 'tx2'])).length, 2)
  const wrote = db.transaction(async t => {
    await t('kx_customer').insert({ name: 'both' })
    await t('user_activity').insert({ user_id: 9 })
  })
  if (config.isVirtual) await assert.rejects(wrote, e => e.code === '0A000')
  else await wrote
  const n = config.isVirtual ? 0 : 1
  assert.strictEqual((await db('kx_customer').where('name', 'both')).length, n)
  assert.strictEqual(await db('user_activity').where('user_id', 9).del(), n)
  await assert.rejects(db.transaction(async t => {
    await t('kx_order').del()
    await t.rollback(new Error('no'))
  }), /no/)
  assert.strictEqual((await db('kx_order').count('* as n').first()).n, '20')
}

async function queries (db) {
  const seen = []
  for await (const { id } of db('user_activity').select('id').stream({ highWaterMark: 7 })) seen.push(id)
  assert.strictEqual(seen.length, 100)
  for await (const row of db('user_activity').stream({ highWaterMark: 3 })) {
    assert(row.id)
    break
  }
  await Promise.all(range(60).map(async i => {
    const { rows } = await db.raw('select user_id from accounts where user_id = ?', [i + 1])
    assert.strictEqual(rows[0].user_id, i + 1)
    assert.strictEqual((await db('user_activity').where({ user_id: i % 5 })).length, 20)
  }))
  const { rows } = await db.raw('select current_database() as name from ?? limit ?', ['user_activity', 1])
  assert.strictEqual(rows[0].name, config.activityAt)
  await assert.rejects(db('nosuch').select(), e => e.code === '42P01')
  assert.strictEqual(await db('user_activity').where('user_id', 0).del(), 20)
}

run(async () => {
  const db = connect(config.database)
  await migrate(db)
  await rows(db)
  await transactions(db)
  await queries(db)
  await db.destroy()
})

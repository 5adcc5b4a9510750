// Sequelize: sync, migrations by its query interface, models, relations, transactions, bulk
// writes, upserts, its own classes of errors, a pool. See test_orms.py.
const assert = require('assert')
const { Sequelize, DataTypes, Op, UniqueConstraintError, ForeignKeyConstraintError, Transaction } =
  require('sequelize')
const { config, range, run } = require('./common')

const db = new Sequelize(config.database, config.user, config.password, {
  host: config.host, port: config.port, dialect: 'postgres', pool: { max: 5 },
  logging: process.env.ORM_LOG ? console.log : false
})
const Customer = db.define('seq_customer', {
  name: { type: DataTypes.STRING, allowNull: false, unique: true },
  info: DataTypes.JSONB,
  tags: DataTypes.ARRAY(DataTypes.TEXT),
  at: DataTypes.DATE,
  balance: DataTypes.DECIMAL(12, 2)
})
const Order = db.define('seq_order', { amount: DataTypes.INTEGER })
Customer.hasMany(Order, { foreignKey: 'customerId', onDelete: 'cascade' })
Order.belongsTo(Customer, { foreignKey: 'customerId' })
const Activity = db.define('user_activity', {
  userId: { type: DataTypes.INTEGER, field: 'user_id' }, kind: DataTypes.STRING
}, { tableName: 'user_activity' })

async function migrate () {
  const q = db.getQueryInterface()
  await q.dropTable('seq_moved')
  await db.transaction(async transaction => {
    const id = { type: DataTypes.INTEGER, primaryKey: true, autoIncrement: true }
    await q.createTable('seq_moved', { id, old: DataTypes.STRING }, { transaction })
    await q.addColumn('seq_moved', 'added', { type: DataTypes.DATE }, { transaction })
    await q.renameColumn('seq_moved', 'old', 'new', { transaction })
    await q.addIndex('seq_moved', ['new'], { unique: true, transaction })
    await q.changeColumn('seq_moved', 'new', { type: DataTypes.TEXT, allowNull: false }, { transaction })
  })
  await assert.rejects(db.transaction(async transaction => {
    await q.removeColumn('seq_moved', 'added', { transaction })
    throw new Error('no')
  }), /no/)
  const { id, added, new: renamed } = await q.describeTable('seq_moved')
  assert(id.primaryKey && added)
  assert.deepStrictEqual([renamed.type, renamed.allowNull], ['TEXT', false])
  assert((await q.showAllTables()).includes('seq_moved'))
  assert.strictEqual((await q.showIndex('seq_moved')).length, 2)
}

async function rows () {
  const at = new Date('2026-03-29T01:30:00.123Z')
  const made = await Customer.bulkCreate(range(30).map(i => (
    { name: `c${i}`, info: { i, deep: [{ x: 'ä' }] }, tags: ['a', 'b,"' + i], at, balance: '10.50' })))
  await Order.bulkCreate(made.map((c, i) => ({ amount: i, customerId: c.id })))
  await Activity.bulkCreate(range(40).map(i => ({ userId: i % 4, kind: 'click' })))
  assert.strictEqual(await Customer.count(), 30)
  assert.strictEqual(await Activity.count({ where: { userId: 3 } }), 10)
  const page = await Customer.findAndCountAll({
    where: { name: { [Op.like]: 'c1%' } }, order: [['id', 'DESC']], limit: 3, include: Order
  })
  assert.strictEqual(page.count, 11)
  assert.deepStrictEqual(page.rows.map(r => r.seq_orders[0].amount), [19, 18, 17])
  const found = await Customer.findByPk(made[2].id)
  assert.deepStrictEqual(found.tags, ['a', 'b,"2'])
  assert.deepStrictEqual(found.info, { i: 2, deep: [{ x: 'ä' }] })
  assert.strictEqual(found.at.getTime(), at.getTime())
  assert.strictEqual(await Customer.count({ where: { info: { i: { [Op.gt]: 20 } } } }), 9)
  assert.strictEqual(await Customer.count({ where: { tags: { [Op.contains]: ['b,"4'] } } }), 1)
  found.info = { x: 1 }
  await found.save()
  await found.reload()
  assert.strictEqual(found.info.x, 1)
  await Customer.upsert({ name: 'c1', balance: '99.00' }, { conflictFields: ['name'] })
  assert.strictEqual((await Customer.findOne({ where: { name: 'c1' } })).balance, '99.00')
  const [other, isNew] = await Customer.findOrCreate({ where: { name: 'found' }, defaults: { balance: 1 } })
  assert(other.id && isNew)
  await found.increment('balance', { by: 2 })
  assert.strictEqual((await found.reload()).balance, '12.50')
  await made[3].destroy()
  assert.strictEqual(await Order.count(), 29)
}

async function transactions () {
  const isolationLevel = Transaction.ISOLATION_LEVELS.REPEATABLE_READ
  await db.transaction({ isolationLevel }, async t => {
    await Activity.findAll({ transaction: t })
    await Customer.create({ name: 'in transaction' }, { transaction: t })
    await assert.rejects(db.transaction({ transaction: t },
      t2 => Customer.create({ name: 'c1' }, { transaction: t2 })), UniqueConstraintError)
    await Customer.findOne({ where: { name: 'c2' }, lock: t.LOCK.UPDATE, transaction: t })
    await Customer.create({ name: 'after savepoint' }, { transaction: t })
  })
  const both = ['in transaction', 'after savepoint']
  assert.strictEqual(await Customer.count({ where: { name: both } }), 2)
  const wrote = db.transaction(async transaction => {
    await Customer.create({ name: 'both' }, { transaction })
    await Activity.create({ userId: 9 }, { transaction })
  })
  if (config.isVirtual) await assert.rejects(wrote, e => e.original.code === '0A000')
  else await wrote
  const n = config.isVirtual ? 0 : 1
  assert.strictEqual(await Customer.count({ where: { name: 'both' } }), n)
  assert.strictEqual(await Activity.count({ where: { userId: 9 } }), n)
}

async function errors () {
  await assert.rejects(Customer.create({ name: 'c2' }), e => e instanceof UniqueConstraintError &&
    e.errors[0].path === 'name' && e.original.code === '23505')
  await assert.rejects(Order.create({ customerId: -1 }), ForeignKeyConstraintError)
  await assert.rejects(db.query('select * from nosuch'), e => e.original.code === '42P01')
}

async function queries () {
  const text = 'select user_id from accounts where user_id = '
  const [named] = await db.query(text + ':id', { replacements: { id: 41 } })
  assert.strictEqual(named[0].user_id, 41)
  const type = 'SELECT'
  assert.strictEqual((await db.query(text + '$1', { bind: [40], type }))[0].user_id, 40)
  await Promise.all(range(60).map(async i => {
    if (i % 3 === 0) assert.strictEqual(await Activity.sum('userId', { where: { kind: 'click' } }), 60)
    else if (i % 3 === 1) assert((await Customer.max('id')) >= 30)
    else assert.strictEqual((await db.query(text + '$1', { bind: [i + 1], type }))[0].user_id, i + 1)
  }))
  const [where] = await db.query('select current_database() as name from user_activity limit 1', { type })
  assert.strictEqual(where.name, config.activityAt)
  assert.strictEqual(await Activity.destroy({ where: { userId: 1 } }), 10)
}

run(async () => {
  await db.authenticate()
  await db.sync({ force: true })
  await db.sync()
  await migrate()
  await rows()
  await transactions()
  await errors()
  await queries()
  await db.close()
})

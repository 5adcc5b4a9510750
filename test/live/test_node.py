"""node-postgres in transaction mode: unnamed and named statements, transactions, a pool, errors."""
import json
import os
import subprocess

import pytest

import fetch
from proxy import is_standin

SCRIPT = r"""
const { Pool, Client } = require('pg')
const assert = require('assert')
const config = JSON.parse(process.argv[2])
const named = process.argv[3] === 'named'
async function main () {
  const pool = new Pool({ ...config, max: 12 })
  const q = (name, text, values) => named ? { name, text, values } : { text, values }
  const jobs = []
  for (let i = 0; i < 300; i++) {
    jobs.push(pool.query(q('a' + i % 7, `select $1::int as v, ${i % 7} as k`, [i])).then(r => {
      assert.strictEqual(r.rows[0].v, i)
      assert.strictEqual(r.rows[0].k, i % 7)
    }))
  }
  await Promise.all(jobs)
  const transactions = []
  for (let i = 0; i < 10; i++) {
    transactions.push((async () => {
      const c = await pool.connect()
      await c.query('begin')
      await c.query(`create temp table t_node (a int) on commit drop`)
      await c.query(q('ins' + i, 'insert into t_node select generate_series(1, $1::int)', [100 + i]))
      const r = await c.query('select count(*)::int as n from t_node')
      assert.strictEqual(r.rows[0].n, 100 + i)
      await c.query('commit')
      c.release()
    })())
  }
  await Promise.all(transactions)
  await assert.rejects(pool.query('select 1/0'), e => e.code === '22012')
  await assert.rejects(pool.query('select $1::int', ['x']), e => e.code === '22P02')
  const big = await pool.query('select repeat($1, 3000000) as s', ['z'])
  assert.strictEqual(big.rows[0].s.length, 3000000)
  await pool.end()
  const c = new Client({ ...config, application_name: 'noddy', statement_timeout: 5000 })
  await c.connect()
  assert.strictEqual((await c.query('show application_name')).rows[0].application_name, 'noddy')
  assert.strictEqual((await c.query('show statement_timeout')).rows[0].statement_timeout, '5s')
  await c.end()
  console.log('fine')
}
main().catch(e => { console.error(e); process.exit(1) })
"""


@pytest.mark.parametrize("how", ["unnamed", "named"])
def test_node(proxy, any_pg, how, tmp_path):
    modules, why = fetch.node()
    if not modules:
        pytest.skip(why)
    if is_standin():
        pytest.skip("what PgBouncer does not do")
    door = proxy(any_pg, pool_mode="transaction", default_pool_size=4)
    script = tmp_path / "test.js"
    script.write_text(SCRIPT)
    config = json.dumps(dict(host="127.0.0.1", port=door.port, user="alice", password="pw-alice",
                             database="shop"))
    done = subprocess.run(["node", str(script), config, how], timeout=60, text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          env=dict(os.environ, NODE_PATH=modules))
    assert done.stdout.strip() == "fine", done.stdout

// What the scripts of Node share. The argument is what test_orms.py says of the database.
exports.config = JSON.parse(process.argv[2])
exports.range = n => [...Array(n).keys()]
exports.run = main => main().then(() => console.log('fine'), e => {
  console.error(e)
  process.exit(1)
})

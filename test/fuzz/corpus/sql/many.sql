select 1;;/* a /* b */ c */ -- x
;begin;
/* pgweave: databases=a, b shard_key='x' */ update t set a = 1; commit; select 'open
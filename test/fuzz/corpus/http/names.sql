select ':a', E'\':b', ":c", $x$:d$x$, :e::int, x := :f, t[1:2] /* :g /* */ */ -- :h
:i
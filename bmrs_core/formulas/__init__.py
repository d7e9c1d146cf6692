"""The mathematics of BMRS, written once.

Every function of this package is a scalar formula in a small common subset of Python, and has no
binding of its own: :mod:`bmrs_core.backends.clone` binds the same text to NumPy and any other
array namespace, to Numba, to Triton and, in the tests, to mpmath.

The subset:

- arithmetic, comparisons, ``&`` and ``|`` on their results; ``where(c, a, b)`` instead of ``if``,
  so that a text is also what a vectoriser needs;
- the functions of :mod:`.primitives` and the named constants of :mod:`.constants` instead of
  library calls and float literals (a literal would promote float32 arithmetic in Numba);
- ``for j in range(N)`` over the quadrature nodes of :mod:`.constants`, and no other loop; a
  function with such a loop is marked ``@sums_over_nodes``;
- no default arguments, no keyword arguments, no globals but the above and other formulas.

A formula with several regimes that would be wasteful to evaluate side by side comes as several texts,
say ``f_common``, ``f_rare`` and ``f_is_rare``: see :class:`bmrs_core.backends.formula.Formula`.
"""

"""Prints the coefficients of src/numerics/functions/poly.rs: python3 minimax.py (with numpy and mpmath).

Each polynomial has a fixed first term and is otherwise the one whose largest weighted error is smallest (Remez's
exchange on a grid, with 40 digits). Each coefficient is then rounded once to f32.
"""

import mpmath
import numpy

mpmath.mp.dps = 40
mpf = mpmath.mpf
POINTS = 4000


def minimax(low, high, target, basis, weight):
    """The coefficients c for which the largest |target - sum c * basis| * weight on [low, high] is smallest."""
    # Points that stand closer at the ends; none is 0, where all vanish.
    middle, half = (mpf(low) + mpf(high)) / 2, (mpf(high) - mpf(low)) / 2
    grid = [middle - half * mpmath.cos(mpmath.pi * (i + mpf(1) / 2) / POINTS) for i in range(POINTS)]
    rows = [[b(x) * weight(x) for b in basis] for x in grid]
    aims = [target(x) * weight(x) for x in grid]
    count = len(basis) + 1
    places = [round((POINTS - 1) * (1 - numpy.cos(numpy.pi * (i + 0.5) / count)) / 2) for i in range(count)]
    for _ in range(60):
        matrix = mpmath.matrix(count, count)
        for row, at in enumerate(places):
            for column, value in enumerate(rows[at]):
                matrix[row, column] = value
            matrix[row, count - 1] = (-1) ** row
        found = mpmath.lu_solve(matrix, mpmath.matrix([aims[at] for at in places]))
        found = [found[i] for i in range(count - 1)]
        errors = [aim - mpmath.fdot(row, found) for row, aim in zip(rows, aims)]
        # The largest of each stretch of one sign.
        peaks = []
        for at, error in enumerate(errors):
            if peaks and (errors[peaks[-1]] > 0) == (error > 0):
                if abs(error) > abs(errors[peaks[-1]]):
                    peaks[-1] = at
            else:
                peaks.append(at)
        while len(peaks) > count:
            peaks.pop(0 if abs(errors[peaks[0]]) < abs(errors[peaks[-1]]) else -1)
        assert len(peaks) == count, "the errors do not alternate"
        if peaks == places:
            break
        places = peaks
    else:
        raise AssertionError("the exchange does not end")
    return found, max(abs(error) for error in errors)


def show(name, degree, coefficients, error):
    words = [f"0x{numpy.float32(float(c)).view(numpy.uint32):08X}" for c in coefficients]
    print(f"{name} {degree}: {', '.join(words)}  // {mpmath.nstr(error, 3)}")


def powers(exponents):
    return [lambda x, e=e: x**e for e in exponents]


def tail(t):
    """erfc(z) * e^(z^2) for t = 1/(1 + z/2)."""
    z = 2 * (1 / t - 1)
    return mpmath.erfc(z) * mpmath.exp(z * z)


if __name__ == "__main__":
    half_ln_2 = mpmath.log(2) / 2
    for degree in range(3, 8):
        # Of (e^r - 1) / r, so that the errors change their signs where they should.
        exp = minimax(
            -half_ln_2, half_ln_2, lambda r: mpmath.expm1(r) / r, powers(range(degree)), lambda r: abs(r) * mpmath.exp(-r)
        )
        show("EXP", degree, *exp)
    quarter_pi = mpmath.pi / 4
    for degree in (3, 5, 7):
        exponents = range(3, degree + 1, 2)
        sin = minimax(0, quarter_pi, lambda r: mpmath.sin(r) - r, powers(exponents), lambda r: 1 / mpmath.sin(r))
        show("SIN", degree, *sin)
    for degree in (2, 4, 6):
        exponents = range(2, degree + 1, 2)
        cos = minimax(0, quarter_pi, lambda r: mpmath.cos(r) - 1, powers(exponents), lambda r: 1 / mpmath.cos(r))
        show("COS", degree, *cos)
    # Where z reaches 10, no f32 is left of e^(-z^2).
    for degree in range(3, 8):
        tails = minimax(mpf(1) / 6, 1, tail, powers(range(1, degree + 1)), lambda t: 1 / tail(t))
        show("TAIL", degree, *tails)

"""Studies of what the store holds already: many settings at once, without a teacher's call or a model's pass."""

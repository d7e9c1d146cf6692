"""BMRS beside what people would pick instead, at equal multiply-adds and equal epochs, on Fashion-MNIST."""

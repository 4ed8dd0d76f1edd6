"""judge says what a view gives, by another way than the compiler's: slowly, in memory, item by item."""

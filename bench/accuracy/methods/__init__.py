"""What is compared. Each module is a method or a family of them; all_methods lists every one."""

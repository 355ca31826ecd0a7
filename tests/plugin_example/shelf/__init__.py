"""A store and an executor for the Task Agent, outside its repository."""
